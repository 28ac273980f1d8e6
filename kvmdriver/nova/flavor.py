"""What flavors say."""

from nova.objects.flavor import Flavor


def specs_of(flavor: Flavor) -> dict[str, str]:
    return dict(flavor.extra_specs) if "extra_specs" in flavor else {}
