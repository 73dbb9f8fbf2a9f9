# On a host: print what must not change if one more app comes. The app welcome is that one.
set -eu
for app in $(ls /srv); do
    if [ "$app" = welcome ] || [ ! -e "/srv/$app/history.json" ]; then
        continue
    fi
    cd "/srv/$app"
    echo "$app serves $(readlink current) by $(readlink live.sock)"
    echo "$app has $(ls releases venvs | tr '\n' ' ')"
    echo "$app was $(sha256sum < history.json)"
done
# The commands that a timer starts come and go.
systemctl list-units --state=active --plain --no-legend --full 'flask-*' 'postgresql@*' \
    | while read -r unit _; do
        case $unit in
            flask-welcome* | *_timer@*.service) continue ;;
        esac
        # A timer that fires does not become active again.
        systemctl show --property=Id,MainPID,NRestarts,ActiveEnterTimestampMonotonic,InvocationID "$unit" | sort | tr '\n' ' '
        echo
    done
for log in /srv/kitchen/data/instance/migrations.log /srv/diary/data/.flaskhost-setup.json; do
    echo "$log $(sha256sum < "$log")"
done
