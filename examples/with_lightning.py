"""Fine-tune with Lightning (pip install lightning): python examples/with_lightning.py PHOTOS EPOCHS"""

import sys

import lightning
import torch
from torchvision.datasets import ImageFolder

import igcv


class FineTuning(lightning.LightningModule):
    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        loss = torch.nn.functional.cross_entropy(self.network(batch[0]), batch[1])
        self.log("loss", loss, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


weights = "igcv3_d_p50.cifar10"
photos = ImageFolder(sys.argv[1], igcv.load(weights).transform)
task, loader = FineTuning(), torch.utils.data.DataLoader(photos, batch_size=8, shuffle=True)
task.network = igcv.create_model(weights, len(photos.classes), pretrained=True)
trainer = lightning.Trainer(max_epochs=int(sys.argv[2]), logger=False)
trainer.fit(task, loader)
print(f"loss of the last epoch: {trainer.callback_metrics['loss']:.3f}")
