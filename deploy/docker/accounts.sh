#!/bin/bash
# Makes each service's schema and users, when MySQL's data directory is new.
# shellcheck disable=SC2016 # What stands in single quotes is the template's.
set -euo pipefail
template=$(</accounts.sql)
for service in ingest query keys maintenance; do
    password=${service^^}_PASSWORD
    migration_password=${service^^}_MIGRATION_PASSWORD
    sql=${template//'${service}'/$service}
    sql=${sql//'${client_host}'/%}
    sql=${sql//'${password}'/${!password}}
    sql=${sql//'${migration_password}'/${!migration_password}}
    # Not in the arguments, which other processes could read.
    MYSQL_PWD=$MYSQL_ROOT_PASSWORD mysql -uroot <<<"$sql"
done
