"""``python -m edgenas.agent``: the agent without its archive, for people who look into it."""

from .main import main

if __name__ == "__main__":
    raise SystemExit(main())
