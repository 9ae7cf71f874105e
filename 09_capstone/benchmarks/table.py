"""How the benchmarks print: a Markdown table under a line that names the machine."""

import platform

import psutil
import torch


def print_table(header: list[str], rows: list[list[str]]) -> None:
    print(
        f"\n{platform.system()} {platform.machine()}, {psutil.cpu_count(logical=False)} cores, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}\n"
    )
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, ["-" * width for width in widths], *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(f"| {' | '.join(cells)} |")
