"""`python -m task_service run | migrate`."""

from servicekit.commands import main
from task_service.app import migrations, run

if __name__ == "__main__":
    main("task_service", run, migrations())
