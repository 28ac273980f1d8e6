"""The live migration of one guest, seen from its source."""
