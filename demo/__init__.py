"""The demonstration that ``make demo`` runs, and the real Airflow it runs in, which the tests use too."""
