"""Reading nova's ImageMeta, whose fields may be unset."""

from typing import Any

from nova.objects.image_meta import ImageMeta


def field(image_meta: ImageMeta, name: str) -> Any:
    """Return a field of an image; None if it is unset."""
    return getattr(image_meta, name) if image_meta.obj_attr_is_set(name) else None
