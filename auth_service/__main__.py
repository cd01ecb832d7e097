"""`python -m auth_service run | migrate`."""

from auth_service.app import migrations, run
from servicekit.commands import main

if __name__ == "__main__":
    main("auth_service", run, migrations())
