import nova.tests.unit  # noqa: F401 sets nova's scene, and must come before anything else of it
