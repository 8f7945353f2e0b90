"""`python -m services.strategy`: closed candles and marks in, signals and decisions out."""

from libs.common.process import main
from services.strategy.app import build, make_core

if __name__ == "__main__":
    main("strategy", check=make_core, build=build, port=9104)
