"""What is computed: pure functions and frozen records. No Dagster, SQL, environment or clock."""
