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

locals {
  role   = "arn:aws:iam::000000000000:role/tapehouse"
  lambda = "arn:aws:lambda:us-east-1:000000000000:function:f:1"
}

# Nothing but what is required: the provider's own defaults.
resource "aws_kinesis_firehose_delivery_stream" "least" {
  name        = "tf-least"
  destination = "extended_s3"
  extended_s3_configuration {
    role_arn   = local.role
    bucket_arn = "arn:aws:s3:::archive"
    prefix     = var.changed ? "some/" : null
  }
}

resource "aws_kinesis_firehose_delivery_stream" "objects" {
  name        = "tf-objects"
  destination = "extended_s3"
  tags        = var.changed ? { owner = "surveillance", shift = "night" } : { owner = "billing", stage = "test" }
  extended_s3_configuration {
    role_arn            = local.role
    bucket_arn          = "arn:aws:s3:::archive"
    prefix              = "raw/!{timestamp:yyyy/MM/dd}/"
    error_output_prefix = "errors/!{firehose:error-output-type}/"
    buffering_size      = 64
    buffering_interval  = var.changed ? 90 : 60
    compression_format  = var.changed ? "Snappy" : "GZIP"
    custom_time_zone    = var.changed ? "UTC" : "America/New_York"
    file_extension      = var.changed ? "" : ".json.gz"
    cloudwatch_logging_options { # the provider reads the names only where logging is enabled
      enabled         = !var.changed
      log_group_name  = var.changed ? null : "/firehose"
      log_stream_name = var.changed ? null : "objects"
    }
    processing_configuration {
      enabled = true
      processors {
        type = "AppendDelimiterToRecord"
      }
    }
    s3_backup_mode = "Enabled"
    s3_backup_configuration {
      role_arn   = local.role
      bucket_arn = "arn:aws:s3:::backup"
      prefix     = "source/"
    }
  }
}

resource "aws_kinesis_firehose_delivery_stream" "partitions" {
  name        = "tf-partitions"
  destination = "extended_s3"
  extended_s3_configuration {
    role_arn            = local.role
    bucket_arn          = "arn:aws:s3:::archive"
    prefix              = "by/!{partitionKeyFromQuery:symbol}/"
    error_output_prefix = "errors/!{firehose:error-output-type}/"
    buffering_size      = var.changed ? 100 : 64
    dynamic_partitioning_configuration {
      enabled        = true
      retry_duration = 60
    }
    processing_configuration {
      enabled = true
      processors {
        type = "RecordDeAggregation"
        parameters {
          parameter_name  = "SubRecordType"
          parameter_value = "JSON"
        }
      }
      processors {
        type = "MetadataExtraction"
        parameters {
          parameter_name  = "JsonParsingEngine"
          parameter_value = "JQ-1.6"
        }
        parameters {
          parameter_name  = "MetadataExtractionQuery"
          parameter_value = "{symbol:.symbol}"
        }
      }
    }
  }
}

resource "aws_kinesis_firehose_delivery_stream" "parquet" {
  name        = "tf-parquet"
  destination = "extended_s3"
  extended_s3_configuration {
    role_arn       = local.role
    bucket_arn     = "arn:aws:s3:::archive"
    buffering_size = 128
    data_format_conversion_configuration {
      input_format_configuration {
        deserializer {
          open_x_json_ser_de {
            column_to_json_key_mappings = { n = "number" }
          }
        }
      }
      output_format_configuration {
        serializer {
          parquet_ser_de {
            compression                   = var.changed ? "SNAPPY" : "GZIP"
            enable_dictionary_compression = true
          }
        }
      }
      schema_configuration {
        database_name = "public"
        table_name    = "tf"
        role_arn      = local.role
      }
    }
  }
}

resource "aws_kinesis_firehose_delivery_stream" "table" {
  name        = "tf-table"
  destination = "iceberg"
  iceberg_configuration {
    role_arn           = local.role
    catalog_arn        = "arn:aws:glue:us-east-1:000000000000:catalog"
    buffering_size     = var.changed ? 20 : 10
    buffering_interval = 400
    retry_duration     = var.changed ? 30 : 300
    s3_configuration {
      role_arn   = local.role
      bucket_arn = "arn:aws:s3:::lake"
    }
    destination_table_configuration {
      database_name = "public"
      table_name    = "tf"
    }
    processing_configuration {
      enabled = true
      processors {
        type = "Lambda"
        parameters {
          parameter_name  = "LambdaArn"
          parameter_value = local.lambda
        }
      }
    }
  }
}

# A stream that the pack has made.
data "aws_kinesis_firehose_delivery_stream" "executions" {
  name = "executions"
}

output "executions" {
  value = data.aws_kinesis_firehose_delivery_stream.executions.arn
}
