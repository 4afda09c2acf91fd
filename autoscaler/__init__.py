"""Decides how many workers run, by KEDA's and the HPA's algorithms, so one file scales cluster and laptop."""
