from oslo_service import backend

# before anything else of oslo is imported, which would choose another one
backend.init_backend(backend.BackendType.THREADING)
