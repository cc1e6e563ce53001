terraform {
  required_providers {
    aws = { source = "registry.terraform.io/hashicorp/aws" }
  }
}

# Endpoint, region and key come from the environment, as `tapehouse env` exports them.
provider "aws" {
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_region_validation      = true
  skip_requesting_account_id  = true
}

# The second apply of the test sets it.
variable "changed" {
  type    = bool
  default = false
}

# Given or not, it is the same: the provider has no account that it could ask for.
locals {
  catalog = "000000000000"
}

resource "aws_glue_catalog_database" "least" {
  name = "tf_least"
}

resource "aws_glue_catalog_database" "full" {
  name         = "tf_full"
  catalog_id   = local.catalog
  description  = var.changed ? "changed" : "of the desk"
  location_uri = "s3://lake/tf/"
  parameters   = var.changed ? { b = "2" } : { a = "1", comment = "kept apart" }
  tags         = var.changed ? { team = "night" } : { team = "ops", stage = "test" }

  create_table_default_permission {
    permissions = ["ALL"]
    principal {
      data_lake_principal_identifier = "IAM_ALLOWED_PRINCIPALS"
    }
  }
}

resource "aws_glue_catalog_table" "least" {
  name          = "least"
  database_name = aws_glue_catalog_database.least.name
}

resource "aws_glue_catalog_table" "full" {
  name          = "full"
  database_name = aws_glue_catalog_database.full.name
  catalog_id    = local.catalog
  description   = var.changed ? "changed" : "trades by date"
  owner         = "desk"
  retention     = var.changed ? 7 : 3
  table_type    = "EXTERNAL_TABLE"

  parameters = {
    EXTERNAL       = "TRUE"
    classification = "parquet"
  }

  partition_keys {
    name    = "trade_date"
    type    = "date"
    comment = "the exchange's"
  }

  partition_keys {
    name = "venue"
    type = "string"
  }

  partition_index {
    index_name = "by_date"
    keys       = ["trade_date"]
  }

  storage_descriptor {
    location          = "s3://lake/tf/trades/"
    input_format      = "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat"
    output_format     = "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat"
    bucket_columns    = ["symbol"]
    number_of_buckets = 4

    ser_de_info {
      name                  = "parquet"
      serialization_library = "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"
      parameters            = { "serialization.format" = "1" }
    }

    columns {
      name = "symbol"
      type = "string"
    }

    columns {
      name       = "price"
      type       = var.changed ? "decimal(38,10)" : "decimal(18,4)"
      comment    = "of a share"
      parameters = { unit = "dollar" }
    }

    dynamic "columns" {
      for_each = var.changed ? ["size"] : []
      content {
        name = columns.value
        type = "bigint"
      }
    }

    sort_columns {
      column     = "symbol"
      sort_order = 1
    }

    skewed_info {
      skewed_column_names               = ["symbol"]
      skewed_column_values              = ["AAPL"]
      skewed_column_value_location_maps = { AAPL = "s3://lake/tf/aapl/" }
    }
  }
}

resource "aws_glue_catalog_table" "view" {
  name               = "view"
  database_name      = aws_glue_catalog_database.full.name
  catalog_id         = local.catalog
  table_type         = "VIRTUAL_VIEW"
  view_original_text = "/* Presto View: e30= */"
  view_expanded_text = "/* Presto View */"
  parameters         = { presto_view = "true" }
}

resource "aws_glue_classifier" "pipes" {
  name = "tf-pipes"

  csv_classifier {
    delimiter        = "|"
    quote_symbol     = "\""
    contains_header  = "PRESENT"
    header           = ["symbol", "lot"]
    allow_single_column = false
  }
}

resource "aws_glue_classifier" "rows" {
  name = "tf-rows"

  json_classifier {
    json_path = "$.rows[*]"
  }
}

resource "aws_glue_crawler" "least" {
  name          = "tf-least"
  database_name = aws_glue_catalog_database.least.name
  role          = "arn:aws:iam::000000000000:role/glue"

  s3_target {
    path = "s3://lake/tf/least"
  }
}

resource "aws_glue_crawler" "full" {
  name          = "tf-full"
  database_name = aws_glue_catalog_database.full.name
  role          = "arn:aws:iam::000000000000:role/glue"
  description   = var.changed ? "changed" : "every morning"
  schedule      = var.changed ? "cron(0 7 ? * MON-FRI *)" : "cron(0 6 * * ? *)"
  classifiers   = [aws_glue_classifier.pipes.name]
  table_prefix  = "tf_"

  configuration = jsonencode({
    Version  = 1.0
    Grouping = { TableGroupingPolicy = "CombineCompatibleSchemas" }
  })

  s3_target {
    path        = "s3://lake/tf/full/"
    exclusions  = ["**.tmp", "drafts/**"]
    sample_size = var.changed ? 20 : 10
  }

  schema_change_policy {
    update_behavior = "UPDATE_IN_DATABASE"
    delete_behavior = var.changed ? "DELETE_FROM_DATABASE" : "LOG"
  }

  recrawl_policy {
    recrawl_behavior = "CRAWL_EVERYTHING"
  }

  tags = var.changed ? { team = "night" } : { team = "ops" }
}
