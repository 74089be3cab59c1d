"""Take the README's picture out of the report of a run.

Usage: python docs/make_readme_picture.py RUN
"""

from __future__ import annotations

import base64
import re
import sys
from pathlib import Path

PICTURE = "Histograms of R-hat"
TARGET = Path(__file__).parent / "_static" / "report-rhat.svg"


def main(run: Path) -> None:
    """Write the first picture whose description starts with `PICTURE`."""
    page = (run / "report.html").read_text(encoding="utf-8")
    for tag in re.findall(r"<img[^>]*>", page):
        if f'alt="{PICTURE}' in tag:
            data = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', tag)
            if data is None:
                sys.exit(f"The picture '{PICTURE}' of the report is not an SVG.")
            TARGET.write_bytes(base64.b64decode(data[1]))
            return
    sys.exit(f"The report of {run} has no picture '{PICTURE}'.")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
