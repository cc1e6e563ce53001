// Package crawler makes tables of files that others wrote: it lists them, recognises
// their formats, groups them into tables and partitions, and notes those in the catalog,
// as AWS Glue's crawler does. What is supported stands in docs/crawler.md.
//
//	Source ─▶ scanner ─▶ folders with clusters of alike files ─▶ grouper ─▶ planner ─▶ catalog.ChangeExternals
//	             ▲ recogniser, for new files; memory, for known ones          ▲ the tables that are there
//
// Invariants:
//   - A crawl changes the catalog in one step, together with its report and its entry in
//     the history, or not at all. An entry that is RUNNING when the program starts is of a
//     crawl that changed nothing.
//   - A listing that fails ends the crawl: what was not seen is not taken to be gone.
//   - Types only widen. A column's state is joined from what its values were, component
//     by component, so that the order of files does not matter (State).
//   - Only tables that carry the crawler's name are changed, and only partitions below
//     the crawler's targets.
//   - A file that is bad, empty or of another layout changes no table: it is named in the
//     report. A table or partition counts as gone only when no object lies at its location.
//   - Files that did not change are not read again (memory); without changes nothing is
//     written but the entry in the history.
//   - Memory grows with folders, not with files: at most 250,000 folders, 5 layouts in
//     each. A crawl changes at most 100,000 partitions.
//
// For a front door, the names are those of Glue's API, as far as it has them:
//
//	CreateCrawler, UpdateCrawler, DeleteCrawler   Manager.Create, Update, Delete; a Definition
//	GetCrawler(s), BatchGet, ListCrawlers         Get, List; an Info has state, version and last crawl
//	StartCrawler, StopCrawler                     Start, Stop
//	UpdateCrawlerSchedule, Start…, Stop…          SetSchedule, StartSchedule, StopSchedule
//	GetCrawlerMetrics, ListCrawls                 Metrics, Crawls; Report says why each table changed
//	Create-, Update-, Get-, DeleteClassifier      CreateClassifier and so on
//	CrawlerRunningException, -NotRunning-, -Stopping-   ErrRunning, ErrNotRunning, ErrStopping
//	EntityNotFound, AlreadyExists, InvalidInput   ErrNotFound, ErrExists, ErrInvalid
//	ResourceNumberLimitExceeded                   ErrTooMany
//	SchedulerRunning, SchedulerNotRunning         ErrScheduled
//
// Plan is the dry run, Run a crawl that is waited for, Serve begins schedules and event
// mode, Close stops everything.
package crawler
