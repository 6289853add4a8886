"""What people look at: tables and reasons for the Prefect UI and the terminal, and one self-contained HTML page."""
