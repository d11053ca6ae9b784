"""What holds for all tests: time is never a reason to fail a property. How fast ds01 is, `script/bench` says."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("ds01", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ds01")
