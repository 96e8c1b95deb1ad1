"""``python -m Systems.mars.products``."""

from Systems.mars.products.command import main

if __name__ == "__main__":
    raise SystemExit(main())
