"""Does an OptNet layer help or harm a classifier of digits (OptNet, 4.3, on MNIST)?

    python experiments/mnist/run.py                # minutes; downloads the images
    python experiments/mnist/run.py --data DIR     # from DIR/MNIST/raw/*-ubyte
    python experiments/mnist/run.py --full         # 30 epochs, 5 seeds

Prints a table and writes results.json and curves.png (report.md discusses them).
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))  # so that the file also runs as a script

from experiments.mnist import classify  # noqa: E402

if __name__ == "__main__":
    classify.main(__doc__, HERE, "MNIST")
