"""Examples for other systems that run exports or use their tables, and a data source for Spark.

Each module is a page of documentation and has no code. Its docstring contains complete files to copy, and the tests run
these files with the system itself. `python -m pydoc mixpanel_export.integrations.systemd` shows a page. The `spark`
package is the data source; it requires the extra of the same name.

* `systemd`: a service and a timer that export every night
* `github_actions`: a workflow that exports every night
* `docker`: an image that exports as a user without privileges
* `dbt`: sources, and a model built on the flat tables
* `fastapi`: an HTTP service that starts exports, reports their progress and cancels them
"""
