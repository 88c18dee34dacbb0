"""PostgreSQL: the embedded server, migrations, reading and writing the tables. All SQL is here."""
