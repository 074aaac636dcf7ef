"""For all tests: how long an example of Hypothesis takes is the machine's affair, not the test's."""

from hypothesis import HealthCheck, settings

settings.register_profile("quorate", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("quorate")
