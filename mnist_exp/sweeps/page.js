// Sorting and copying; without this script, the page shows the same.
"use strict"

const NUMBER = /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?(?=$|[ =])/i
const table = document.querySelector("table")

// Numbers come first, then texts; an empty text or a hyphen is last in either direction.
function compare(one, other, sign) {
  const kinds = [one, other].map((text) => (text === "" || text === "-" ? 2 : NUMBER.test(text) ? 0 : 1))
  if (kinds[0] !== kinds[1]) return kinds[0] - kinds[1]
  const numbers = kinds[0] ? 0 : parseFloat(one) - parseFloat(other)
  return sign * (numbers || one.localeCompare(other, "en", { numeric: true }))
}

function sort(header) {
  const sign = header.ariaSort === "ascending" ? -1 : 1
  const rows = [...table.tBodies[0].rows].map((row) => [row.cells[header.cellIndex].textContent.trim(), row])
  rows.sort(([one], [other]) => compare(one, other, sign))
  table.tBodies[0].append(...rows.map(([, row]) => row))
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort")
  header.ariaSort = sign === 1 ? "ascending" : "descending"
}

// Where the browser forbids copying, the command stays selected.
async function copy(button, details) {
  const command = details.querySelector("code")
  details.open = true
  getSelection().selectAllChildren(command)
  await navigator.clipboard.writeText(command.textContent).then(
    () => (button.textContent = "copied"),
    () => (button.textContent = "press Ctrl-C"),
  )
}

function button(label, action) {
  const made = document.createElement("button")
  made.append(...label)
  made.addEventListener("click", () => action(made))
  return made
}

for (const header of table.querySelectorAll("thead th:not(.command)")) {
  header.append(button(header.childNodes, () => sort(header)))
}
for (const details of table.querySelectorAll("td.command details")) {
  const copying = button(["copy"], (made) => copy(made, details))
  copying.ariaLive = "polite"
  details.before(copying)
}
