"""`mergekit-yaml`, also where newer versions of its libraries want its classes to be completed before they are used."""

import mergekit.architecture.base as definitions
import torch
import transformers

for name in dir(definitions):
    of = getattr(definitions, name)
    if hasattr(of, "model_rebuild") and name != "BaseModel":
        of.model_rebuild(_types_namespace={**vars(definitions), "torch": torch, "PretrainedConfig": transformers.PretrainedConfig})

from mergekit.scripts.run_yaml import main  # noqa: E402

main()
