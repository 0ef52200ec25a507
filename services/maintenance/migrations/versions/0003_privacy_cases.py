"""What people asked of a store about their data."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "privacy_cases",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("uid", mysql.BINARY(16), nullable=False, unique=True),
        sa.Column("store_uid", mysql.BINARY(16), nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("subject_hash", mysql.BINARY(16), nullable=False),
        sa.Column(
            "sealed_subject",
            sa.LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql"),
            nullable=True,
        ),
        sa.Column("id_count", sa.Integer(), nullable=False),
        sa.Column(
            "counts", sa.LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql"), nullable=False
        ),
        sa.Column("failure", sa.String(64), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("lease_time", mysql.DATETIME(fsp=6), nullable=False),
        sa.Column("attempt_count", sa.Integer(), nullable=False),
        sa.Column("create_time", mysql.DATETIME(fsp=6), nullable=False),
        sa.Column("suppress_time", mysql.DATETIME(fsp=6), nullable=True),
        sa.Column("end_time", mysql.DATETIME(fsp=6), nullable=True),
        sa.Column(
            "receipt", sa.LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql"), nullable=True
        ),
        sa.Column("archive_part_count", sa.Integer(), nullable=False),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
