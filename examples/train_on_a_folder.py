"""Train a classifier on one folder of images per class, then classify an image.

    python examples/train_on_a_folder.py photos photo.jpg

`photos` holds one folder per class: photos/cat/*.jpg, photos/dog/*.jpg.
"""

from argparse import ArgumentParser

import igcv

parser = ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("photos", help="folder with one folder of images per class")
parser.add_argument("image", help="image to classify with the trained network")
parser.add_argument("--minutes", type=float, default=10, help="training time (default: 10)")
arguments = parser.parse_args()

# Without a recipe, igcv chooses every setting from the images and the machine, and prints why.
run = igcv.train(data=f"folder:{arguments.photos}", max_minutes=arguments.minutes)
print(f"{run.folder}: {run.summary['best_top1']:.1f} % of the validation images are right")

for prediction in run.classifier.predict(arguments.image, top=3)[0]:
    print(f"{prediction.probability:7.2%}  {prediction.name}")

igcv.write_report([run.folder], run.folder / "report.html")  # curves, confusion matrix, errors
