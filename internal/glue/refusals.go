package glue

import "strings"

// refusals are the operations of the model that are not supported, each with what to
// do instead.
var refusals = func() map[string]string {
	out := map[string]string{}
	for _, f := range refusedFamilies {
		for _, name := range strings.Fields(f.operations) {
			out[name] = f.why
		}
	}
	for name := range operations {
		delete(out, name)
	}
	return out
}()

var refusedFamilies = []struct{ why, operations string }{
	{
		"there are no data quality rules here: check data with SQL.", `BatchGetDataQualityResult BatchPutDataQualityStatisticAnnotation CancelDataQualityRuleRecommendationRun
			CancelDataQualityRulesetEvaluationRun CreateDataQualityRuleset DeleteDataQualityRuleset GetDataQualityModel
			GetDataQualityModelResult GetDataQualityResult GetDataQualityRuleRecommendationRun GetDataQualityRuleset
			GetDataQualityRulesetEvaluationRun ListDataQualityResults ListDataQualityRuleRecommendationRuns
			ListDataQualityRulesetEvaluationRuns ListDataQualityRulesets ListDataQualityStatisticAnnotations
			ListDataQualityStatistics PutDataQualityProfileAnnotation StartDataQualityRuleRecommendationRun
			StartDataQualityRulesetEvaluationRun UpdateDataQualityRuleset`,
	},
	{
		"statistics are computed by the engine that reads a table; write your own by UpdateColumnStatisticsForTable.", `CreateColumnStatisticsTaskSettings DeleteColumnStatisticsTaskSettings GetColumnStatisticsTaskRun
			GetColumnStatisticsTaskRuns GetColumnStatisticsTaskSettings ListColumnStatisticsTaskRuns
			StartColumnStatisticsTaskRun StartColumnStatisticsTaskRunSchedule StopColumnStatisticsTaskRun
			StopColumnStatisticsTaskRunSchedule UpdateColumnStatisticsTaskSettings`,
	},
	{
		"managed tables are compacted, and their snapshots expired, by themselves (`maintain` in the configuration).", `BatchGetTableOptimizer CreateTableOptimizer DeleteTableOptimizer GetTableOptimizer ListTableOptimizerRuns
			UpdateTableOptimizer`,
	},
	{
		"use CREATE MATERIALIZED VIEW and REFRESH MATERIALIZED VIEW in SQL.", `GetMaterializedViewRefreshTaskRun ListMaterializedViewRefreshTaskRuns StartMaterializedViewRefreshTaskRun
			StopMaterializedViewRefreshTaskRun`,
	},
	{
		"there are no integrations with other services here: feed a delivery stream.", `CreateGlueIdentityCenterConfiguration CreateIntegration CreateIntegrationResourceProperty
			CreateIntegrationTableProperties DeleteGlueIdentityCenterConfiguration DeleteIntegration
			DeleteIntegrationResourceProperty DeleteIntegrationTableProperties DescribeEntity DescribeInboundIntegrations
			DescribeIntegrations GetEntityRecords GetGlueIdentityCenterConfiguration GetIntegrationResourceProperty
			GetIntegrationTableProperties ListEntities ListIntegrationResourceProperties ModifyIntegration
			UpdateGlueIdentityCenterConfiguration UpdateIntegrationResourceProperty UpdateIntegrationTableProperties`,
	},
	{
		"no sensitive data is detected here.", `BatchGetCustomEntityTypes CreateCustomEntityType DeleteCustomEntityType GetCustomEntityType
			ListCustomEntityTypes`,
	},
	{
		"there is no machine learning here: join and deduplicate with SQL.", `CancelMLTaskRun CreateMLTransform DeleteMLTransform GetMLTaskRun GetMLTaskRuns GetMLTransform GetMLTransforms
			ListMLTransforms StartExportLabelsTaskRun StartImportLabelsTaskRun StartMLEvaluationTaskRun
			StartMLLabelingSetGenerationTaskRun UpdateMLTransform`,
	},
	{
		"no jobs run here: transform a stream (docs/transform.md), or use SQL and materialized views.", `BatchGetBlueprints BatchGetDevEndpoints BatchGetJobs BatchGetTriggers BatchGetWorkflows BatchStopJobRun
			CreateBlueprint CreateDevEndpoint CreateJob CreateScript CreateTrigger CreateUsageProfile CreateWorkflow
			DeleteBlueprint DeleteDevEndpoint DeleteJob DeleteTrigger DeleteUsageProfile DeleteWorkflow GetBlueprint
			GetBlueprintRun GetBlueprintRuns GetDataflowGraph GetDevEndpoint GetDevEndpoints GetJob GetJobBookmark
			GetJobRun GetJobRuns GetJobs GetMapping GetPlan GetTrigger GetTriggers GetUsageProfile GetWorkflow
			GetWorkflowRun GetWorkflowRunProperties GetWorkflowRuns ListBlueprints ListDevEndpoints ListJobs ListTriggers
			ListUsageProfiles ListWorkflows PutWorkflowRunProperties ResetJobBookmark ResumeWorkflowRun StartBlueprintRun
			StartJobRun StartTrigger StartWorkflowRun StopTrigger StopWorkflowRun UpdateBlueprint UpdateDevEndpoint
			UpdateJob UpdateJobFromSourceControl UpdateSourceControlFromJob UpdateTrigger UpdateUsageProfile UpdateWorkflow`,
	},
	{
		"run statements over the SQL port.", `CancelStatement CreateSession DeleteSession GetSession GetStatement ListSessions ListStatements RunStatement
			StopSession`,
	},
	{
		"the catalog holds no connections: nothing here reads another database by one.", `BatchDeleteConnection CreateConnection DeleteConnection DeleteConnectionType DescribeConnectionType
			GetConnection GetConnections ListConnectionTypes RegisterConnectionType TestConnection UpdateConnection`,
	},
	{
		"nothing is encrypted with a KMS key here: encrypt the bucket, or the file system under the data directory.", `CreateSecurityConfiguration DeleteSecurityConfiguration GetDataCatalogEncryptionSettings
			GetSecurityConfiguration GetSecurityConfigurations PutDataCatalogEncryptionSettings`,
	},
	{
		"there is no schema registry here: a table has the schema of its columns, which evolves with it.", `CheckSchemaVersionValidity CreateRegistry CreateSchema DeleteRegistry DeleteSchema DeleteSchemaVersions
			GetRegistry GetSchema GetSchemaByDefinition GetSchemaVersion GetSchemaVersionsDiff ListRegistries
			ListSchemaVersions ListSchemas PutSchemaVersionMetadata QuerySchemaVersionMetadata RegisterSchemaVersion
			RemoveSchemaVersionMetadata UpdateRegistry UpdateSchema`,
	},
	{
		"give keys grants with `tapehouse credentials create --service glue`.", `DeleteResourcePolicy GetResourcePolicies GetResourcePolicy PutResourcePolicy`,
	},
	{
		"there is one catalog, and it is here already.", `CreateCatalog DeleteCatalog GetCatalog GetCatalogs ImportCatalogToGlue UpdateCatalog`,
	},
	{
		"there is no Lake Formation here, which would filter: use GetTable and GetPartitions.", `GetUnfilteredPartitionMetadata GetUnfilteredPartitionsMetadata GetUnfilteredTableMetadata`,
	},
	{
		"functions are not kept: use those of SQL.", `CreateUserDefinedFunction DeleteUserDefinedFunction UpdateUserDefinedFunction`,
	},
}
