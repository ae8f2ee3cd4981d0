// Sorting and copying, which the page adds; all that it says is there without them.
"use strict"

const NUMBER = /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?(?=$|[ =])/i
const table = document.querySelector("table.ranking")

// Numbers first, by size; then texts; what is empty or a lone hyphen last, whichever way is up.
function compare(one, other, sign) {
  const [blank, otherBlank] = [one, other].map((text) => text === "" || text === "-")
  if (blank || otherBlank) return blank - otherBlank
  const [number, otherNumber] = [one, other].map((text) => parseFloat(NUMBER.exec(text)))
  if (isNaN(number) !== isNaN(otherNumber)) return isNaN(number) - isNaN(otherNumber)
  return sign * (number - otherNumber || one.localeCompare(other, "en", { numeric: true }))
}

function sort(header) {
  const sign = header.ariaSort === "ascending" ? -1 : 1
  const column = header.cellIndex
  const rows = [...table.tBodies[0].rows].map((row) => [row.cells[column].textContent, row])
  rows.sort(([one], [other]) => compare(one, other, sign))
  table.tBodies[0].append(...rows.map(([, row]) => row))
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort")
  header.ariaSort = sign === 1 ? "ascending" : "descending"
}

async function copy(button, details) {
  const command = details.querySelector("code")
  try {
    await navigator.clipboard.writeText(command.textContent)
    button.textContent = "copied"
  } catch {
    details.open = true
    getSelection().selectAllChildren(command)
    button.textContent = "press Ctrl-C"
  }
}

function button(label) {
  const made = document.createElement("button")
  made.type = "button"
  made.append(...label)
  return made
}

for (const header of table.tHead.querySelectorAll("th:not(.command)")) {
  const sorting = button(header.childNodes)
  sorting.addEventListener("click", () => sort(header))
  header.append(sorting)
}
for (const details of table.querySelectorAll("td.command details")) {
  const copying = button(["copy"])
  copying.ariaLive = "polite"
  copying.addEventListener("click", () => copy(copying, details))
  details.before(copying)
}
