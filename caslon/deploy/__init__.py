"""Scales a service out: how many replicas, and what a policy costs before it runs."""
