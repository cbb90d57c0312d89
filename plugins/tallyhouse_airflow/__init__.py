"""What Tallyhouse adds to Airflow: operators, hooks and task groups, under one name of their own."""
