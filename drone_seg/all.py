"Everything public, floor by floor: `from drone_seg.all import *`"
# 0 ground
from drone_seg.fields import *
from drone_seg.classes import *
from drone_seg.files import *
# 1 photo
from drone_seg.photo.photo_file import *
from drone_seg.photo.images import *
from drone_seg.photo.gsd import *
from drone_seg.photo.show import *
from drone_seg.photo.raster import *
from drone_seg.scenes.shapes import *
from drone_seg.scenes.town import *
from drone_seg.scenes.lots import *
from drone_seg.scenes.canvas import *
from drone_seg.scenes.ground import *
from drone_seg.scenes.things import *
from drone_seg.scenes.crowns import *
from drone_seg.scenes.scene import *
# 2 scores
from drone_seg.scores.confusion import *
from drone_seg.scores.boundary import *
from drone_seg.scores.calibration import *
from drone_seg.scores.intervals import *
# 3 data
from drone_seg.data.records import *
from drone_seg.data.pair import *
from drone_seg.data.datasets import *
from drone_seg.data.join import *
from drone_seg.data.weights import *
from drone_seg.data.causes import *
from drone_seg.data.check import *
from drone_seg.data.write_classes import *
from drone_seg.data.landmarks import *
from drone_seg.data.borders import *
from drone_seg.data.tiles import *
from drone_seg.data.overlap import *
from drone_seg.data.places import *
from drone_seg.data.splits import *
from drone_seg.data.augment import *
from drone_seg.data.cache import *
from drone_seg.data.crops import *
from drone_seg.data.block import *
# 4 models
from drone_seg.models.encoders import *
from drone_seg.models.unet import *
from drone_seg.models.weights import *
from drone_seg.models.catalogue import *
from drone_seg.models.about import *
from drone_seg.models.zoo import *
from drone_seg.models.bundle import *
from drone_seg.models.ensemble import *
from drone_seg.models.memory import *
# 5 training
from drone_seg.train.summary import *
from drone_seg.train.losses import *
from drone_seg.train.loss_for import *
from drone_seg.train.metrics import *
from drone_seg.train.loaders import *
from drone_seg.train.precision import *
from drone_seg.train.parts import *
from drone_seg.train.keep import *
from drone_seg.train.memory import *
from drone_seg.train.rates import *
from drone_seg.train.trackers import *
from drone_seg.train.learner import *
from drone_seg.train.stages import *
from drone_seg.train.callbacks import *
from drone_seg.train.facts import *
from drone_seg.train.checkpoint import *
from drone_seg.train.fit import *
from drone_seg.train.budget import *
from drone_seg.train.recipes import *
from drone_seg.train.by_recipe import *
from drone_seg.train.tune import *
from drone_seg.train.distributed import *
# 6 prediction
from drone_seg.predict.windows import *
from drone_seg.predict.tidy import *
from drone_seg.predict.scale import *
from drone_seg.predict.look import *
from drone_seg.predict.confidence import *
from drone_seg.predict.stream import *
from drone_seg.predict.photo import *
from drone_seg.predict.predict import *
from drone_seg.predict.ledger import *
from drone_seg.predict.folder import *
from drone_seg.predict.cluster import *
from drone_seg.predict.video import *
# 7 runs
from drone_seg.runs.confidence import *
from drone_seg.runs.evaluate import *
from drone_seg.runs.published import *
from drone_seg.runs.run import *
from drone_seg.runs.compare import *
# 8 use
from drone_seg.use.ground import *
from drone_seg.use.circles import *
from drone_seg.use.zones import *
from drone_seg.use.sheet import *
from drone_seg.use.landing import *
from drone_seg.use.map import *
from drone_seg.use.polygons import *
from drone_seg.use.cut import *
from drone_seg.export.write import *
from drone_seg.export.run_onnx import *
