"""The database: tables, connection, the one place that commits."""

# Every table is in the metadata, whoever asks first.
from gateway.db import export_tables as export_tables
from gateway.db import identity_tables as identity_tables
from gateway.db import invoice_tables as invoice_tables
from gateway.db import job_tables as job_tables
from gateway.db import label_tables as label_tables
from gateway.db import policy_tables as policy_tables
from gateway.db import price_tables as price_tables
from gateway.db import reconciliation_tables as reconciliation_tables
from gateway.db import rollup_tables as rollup_tables
from gateway.db import router_tables as router_tables
from gateway.db import routing_tables as routing_tables
