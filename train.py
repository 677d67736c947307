"""Train and judge a model from YAML.

python train.py fit --config configs/base.yaml --data.manifest my_tracks.csv
python train.py test --config runs/<run>/config.yaml --ckpt_path runs/<run>/checkpoints/last.ckpt
"""

from __future__ import annotations

import sys

from xmodal.training import main

if __name__ == "__main__":
    sys.exit(main())
