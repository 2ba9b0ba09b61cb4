"""Apache Airflow provider for Oxen.ai. Import what you need from the modules below by its full path."""

__all__ = ["__version__"]

__version__ = "0.1.0"
