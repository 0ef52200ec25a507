#!/usr/bin/env bash
# Makes each service's schema and users in the database of a stack: accounts.sh shoptrail. May be run
# again, and sets the passwords of Secrets Manager anew.
set -euo pipefail
stack=$1
template=$(<"$(dirname "$0")/../mysql/accounts.sql")

output() {
    aws cloudformation describe-stacks --stack-name "$stack" --output text \
        --query "Stacks[0].Outputs[?OutputKey=='$1'].OutputValue"
}

password() {
    aws secretsmanager get-secret-value --secret-id "$1" --query SecretString --output text |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["password"])'
}

database=$(output DatabaseArnOutput)
administrator=$(output DatabaseAdministratorOutput)
for service in ingest query keys maintenance; do
    sql=${template//"\${service}"/$service}
    sql=${sql//"\${client_host}"/%}
    sql=${sql//"\${password}"/$(password "shoptrail/$service/database")}
    sql=${sql//"\${migration_password}"/$(password "shoptrail/$service/migration")}
    # One statement a call, and by a file: arguments could be read by other processes.
    sed '/^--/d' <<<"$sql" | tr '\n' ' ' | tr ';' '\n' | while read -r statement; do
        [[ $statement ]] || continue
        aws rds-data execute-statement --resource-arn "$database" --secret-arn "$administrator" \
            --sql file:///dev/stdin <<<"$statement" >/dev/null
    done
done
