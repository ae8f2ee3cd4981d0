"""All kinds of inputs that nobody would think of: python -m tests.faults inputs [KIND ...] [--count N]"""

from . import command_lines, configurations, data_files, model_files, picture_files, presets, records

KINDS = {
    **configurations.KINDS,
    **command_lines.KINDS,
    **presets.KINDS,
    **data_files.KINDS,
    **picture_files.KINDS,
    **model_files.KINDS,
    **records.KINDS,
}
