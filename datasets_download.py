"""Fetch the datasets: `python datasets_download.py [NAME ...] [--data-dir DIR] [--mirror URL]`."""

from iwae.data.download import main

if __name__ == "__main__":
    raise SystemExit(main())
