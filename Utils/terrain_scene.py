"""The former name of ``python -m Utils.synthetic.terrain_scene``, kept because earlier READMEs taught it."""

from __future__ import annotations

from Utils.synthetic.terrain_scene import main

if __name__ == "__main__":
    main()
