"""Train on images of Hugging Face datasets (pip install datasets): python examples/from_datasets.py SOURCE MINUTES"""

import sys
from pathlib import Path

import datasets

import igcv

IMAGE, LABEL = "image", "label"  # the columns of your data set
source, minutes = sys.argv[1], float(sys.argv[2])  # a local folder, or a name of the Hub
folder = Path("hugging_face")
folder.mkdir(exist_ok=True)
for split, rows in datasets.load_dataset(source).items():  # train and, if any, validation or test
    columns = rows.select_columns([IMAGE, LABEL]).rename_columns({IMAGE: "image", LABEL: "label"})
    columns.to_parquet(folder / f"{split}.parquet")
run = igcv.train(data=f"timm/hfds/{folder.absolute()}", max_minutes=minutes)
print(f"{run.folder}: {run.summary['best_top1']:.1f} % of the validation images are right")
