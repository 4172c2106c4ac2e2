"""systemd: a service and a timer that export every night.

Create a user with a folder for the program, its account and its database, and run the first sync:

```bash
sudo useradd --system --create-home --home-dir /srv/mixpanel mixpanel
sudo -u mixpanel python3 -m venv /srv/mixpanel/.venv
sudo /srv/mixpanel/.venv/bin/pip install .
sudo -H -u mixpanel /srv/mixpanel/.venv/bin/mpx accounts add main
sudo -H -u mixpanel /srv/mixpanel/.venv/bin/mpx sync --db /srv/mixpanel/mixpanel.duckdb --since 2024-01-01
```

`/etc/systemd/system/mixpanel.service`:

```ini
[Unit]
Description=Export Mixpanel events
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
User=mixpanel
WorkingDirectory=/srv/mixpanel
ExecStart=/srv/mixpanel/.venv/bin/mpx sync
UMask=0077
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=strict
ReadWritePaths=/srv/mixpanel
```

`/etc/systemd/system/mixpanel.timer`:

```ini
[Unit]
Description=Export Mixpanel events every night

[Timer]
OnCalendar=*-*-* 06:00:00 UTC
RandomizedDelaySec=15min
Persistent=yes

[Install]
WantedBy=timers.target
```

Start the timer:

```bash
sudo systemctl daemon-reload
sudo systemctl enable --now mixpanel.timer
```

With `Persistent=yes`, a run that was missed while the machine was off is started later. systemd does not start a second
run while one is active. `systemctl status mixpanel` shows the last run, and `journalctl -u mixpanel` shows its errors.
If a day failed, the exit code is 1, so systemd reports the service as failed, and `OnFailure=` can notify you. After
`systemctl stop mixpanel`, all complete batches are in the database.
"""
