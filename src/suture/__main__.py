"""``python -m suture``."""

from suture.cli.app import main

if __name__ == "__main__":
    main()
