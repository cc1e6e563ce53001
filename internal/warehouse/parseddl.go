package warehouse

import (
	"strings"
)

func (p *parser) ifNotExists() bool { return p.accept("if", "not", "exists") }

func (p *parser) create() (statement, error) {
	at := position(p.sql, p.peek().start)
	switch {
	case p.accept("schema"):
		s := createSchema{ifNotExists: p.ifNotExists()}
		name, err := p.ident()
		if err != nil {
			return nil, err
		}
		s.name = name
		if p.accept("authorization") {
			_, err = p.ident()
		}
		return s, err
	case p.accept("table"):
		return p.createTable()
	case p.accept("materialized", "view"):
		return p.createView()
	case p.accept("temporary", "table"), p.accept("temp", "table"), p.accept("local", "temporary", "table"), p.accept("local", "temp", "table"):
		return nil, unsupported("CREATE TEMPORARY TABLE", "use a WITH query, or a table in a schema of your own").at(at)
	case p.accept("view"), p.accept("or", "replace", "view"):
		return nil, unsupported("CREATE VIEW", "use CREATE MATERIALIZED VIEW, which is always fresh").at(at)
	case p.accept("external"):
		return nil, unsupported("CREATE EXTERNAL", "load the files through a delivery stream or COPY").at(at)
	case p.accept("unique", "index"), p.accept("index"):
		return nil, unsupported("CREATE INDEX", "partition the table by its date and let compaction sort it").at(at)
	case p.accept("user"), p.accept("role"), p.accept("group"):
		return nil, unsupported("CREATE USER, ROLE and GROUP", refused["grant"]).at(at)
	case p.accept("database"):
		return nil, unsupported("CREATE DATABASE", refused["attach"]).at(at)
	case p.accept("function"), p.accept("procedure"), p.accept("or", "replace"), p.accept("trigger"), p.accept("aggregate"):
		return nil, unsupported("CREATE FUNCTION, PROCEDURE and TRIGGER", "write the expression in the query").at(at)
	}
	if t := p.peek(); t.kind == tokenIdent {
		return nil, unsupported("CREATE "+strings.ToUpper(t.value), "docs/sql.md lists the statements").at(at)
	}
	return nil, p.unexpected()
}

func (p *parser) createTable() (statement, error) {
	s := createTable{ifNotExists: p.ifNotExists(), properties: map[string]string{}}
	var err error
	if s.schema, s.name, err = p.qualified(); err != nil {
		return nil, err
	}
	if p.peek().punct("(") && !p.ahead(1).is("like") {
		p.next()
		for {
			if err := p.tableElement(&s); err != nil {
				return nil, err
			}
			if p.accept(")") {
				break
			}
			if err := p.expect(","); err != nil {
				return nil, err
			}
		}
	} else if p.peek().punct("(") {
		return nil, unsupported("CREATE TABLE (LIKE …)", "list the columns").at(position(p.sql, p.peek().start))
	}
	for {
		done, err := p.tableOption(&s)
		if err != nil {
			return nil, err
		}
		if done {
			break
		}
	}
	if p.accept("as") {
		if !startsQuery(p.peek()) {
			return nil, p.unexpected()
		}
		if len(s.columns) > 0 {
			return nil, unsupported("CREATE TABLE (columns) AS", "give the columns their names and types in the SELECT").at(position(p.sql, p.peek().start))
		}
		s.as = p.rest()
		return s, nil
	}
	if len(s.columns) == 0 {
		return nil, p.unexpected()
	}
	return s, nil
}

// tableElement reads a column, or a table constraint.
func (p *parser) tableElement(s *createTable) error {
	if t := p.peek(); t.is("primary") || t.is("unique") || t.is("foreign") || t.is("constraint") || t.is("check") {
		return unsupported("a table constraint ("+strings.ToUpper(t.value)+")", "leave it out; NOT NULL is kept").at(position(p.sql, t.start))
	}
	c, err := p.columnDefinition()
	if err != nil {
		return err
	}
	for _, other := range s.columns {
		if other.name == c.name {
			return errorf(codeDuplicateColumn, "column %q specified more than once", c.name)
		}
	}
	s.columns = append(s.columns, c)
	return nil
}

func (p *parser) columnDefinition() (columnDefinition, error) {
	name, err := p.ident()
	if err != nil {
		return columnDefinition{}, err
	}
	c := columnDefinition{name: name}
	if c.typ, err = p.typeName(); err != nil {
		return c, err
	}
	for {
		at := position(p.sql, p.peek().start)
		switch {
		case p.accept("not", "null"):
			c.notNull = true
		case p.accept("null"), p.accept("distkey"), p.accept("sortkey"):
		case p.accept("encode"):
			if _, err := p.ident(); err != nil {
				return c, err
			}
		case p.accept("collate"):
			if _, _, err := p.qualified(); err != nil {
				return c, err
			}
		case p.accept("default"), p.accept("identity"), p.accept("generated"), p.accept("primary"), p.accept("unique"), p.accept("references"), p.accept("check"):
			word := strings.ToUpper(p.tokens[p.pos-1].value)
			return c, unsupported("the column constraint "+word, "leave it out; NOT NULL is kept").at(at)
		default:
			return c, nil
		}
	}
}

// tableOption reads what follows the columns. Redshift's physical options are
// accepted without effect: the lake's layout is the server's business.
func (p *parser) tableOption(s *createTable) (done bool, err error) {
	switch {
	case p.accept("partitioned", "by"), p.accept("partition", "by"):
		if err := p.expect("("); err != nil {
			return false, err
		}
		if s.partitionBy, err = p.ident(); err != nil {
			return false, err
		}
		if p.peek().punct(",") {
			return false, unsupported("more than one partition column", "partition by the date; the rest is pruned by statistics").at(position(p.sql, p.peek().start))
		}
		return false, p.expect(")")
	case p.accept("tblproperties"), p.accept("table", "properties"):
		return false, p.tableProperties(s)
	default:
		ok, err := p.physicalOption()
		return !ok, err
	}
}

func (p *parser) tableProperties(s *createTable) error {
	if err := p.expect("("); err != nil {
		return err
	}
	for {
		k := p.next()
		if k.kind != tokenString {
			p.pos--
			return p.unexpected()
		}
		if err := p.expect("="); err != nil {
			return err
		}
		v := p.next()
		if v.kind != tokenString {
			p.pos--
			return p.unexpected()
		}
		s.properties[k.value] = v.value
		if p.accept(")") {
			return nil
		}
		if err := p.expect(","); err != nil {
			return err
		}
	}
}

// physicalOption accepts DISTSTYLE, DISTKEY, SORTKEY, ENCODE AUTO and BACKUP.
func (p *parser) physicalOption() (bool, error) {
	switch {
	case p.accept("diststyle"):
		if !p.accept("even") && !p.accept("key") && !p.accept("all") && !p.accept("auto") {
			return false, p.unexpected()
		}
	case p.accept("distkey"):
		return true, p.columnList(false)
	case p.accept("compound", "sortkey"), p.accept("interleaved", "sortkey"), p.accept("sortkey"):
		if p.accept("auto") {
			return true, nil
		}
		return true, p.columnList(true)
	case p.accept("encode", "auto"):
	case p.accept("backup"):
		if !p.accept("yes") && !p.accept("no") {
			return false, p.unexpected()
		}
	default:
		return false, nil
	}
	return true, nil
}

func (p *parser) columnList(many bool) error {
	_, err := p.names(many)
	return err
}

func (p *parser) names(many bool) ([]string, error) {
	if err := p.expect("("); err != nil {
		return nil, err
	}
	var out []string
	for {
		n, err := p.ident()
		if err != nil {
			return nil, err
		}
		out = append(out, n)
		if p.accept(")") {
			return out, nil
		}
		if !many {
			return nil, p.unexpected()
		}
		if err := p.expect(","); err != nil {
			return nil, err
		}
	}
}

// typeName reads a type with its modifiers.
func (p *parser) typeName() (sqlType, error) {
	at := position(p.sql, p.peek().start)
	if p.accept("pg_catalog", ".") {
		at = position(p.sql, p.peek().start)
	}
	name, err := p.ident()
	if err != nil {
		return sqlType{}, err
	}
	switch name {
	case "double":
		if p.accept("precision") {
			name = "float8"
		}
	case "character", "char", "nchar", "national":
		p.accept("character")
		if p.accept("varying") {
			name = "varchar"
		}
	}
	var mods []int
	if p.accept("(") {
		for {
			t := p.next()
			switch {
			case t.kind == tokenNumber:
				mods = append(mods, atoi(t.value))
			case t.is("max"):
			default:
				p.pos--
				return sqlType{}, p.unexpected()
			}
			if p.accept(")") {
				break
			}
			if err := p.expect(","); err != nil {
				return sqlType{}, err
			}
		}
	}
	if name == "timestamp" || name == "time" {
		zoned := p.accept("with", "time", "zone")
		if !zoned {
			p.accept("without", "time", "zone")
		}
		if zoned && name == "time" {
			return sqlType{}, unsupported("the type TIME WITH TIME ZONE", "use TIMESTAMPTZ").at(at)
		}
		if zoned {
			name = "timestamptz"
		}
	}
	if p.peek().punct("[") {
		return sqlType{}, unsupported("an array column", "use a row for each element").at(at)
	}
	switch name {
	case "numeric", "decimal", "dec":
		t := decimal(18, 0) // Redshift's default
		if len(mods) > 0 {
			t.precision = mods[0]
		}
		if len(mods) > 1 {
			t.scale = mods[1]
		}
		if t.precision < 1 || t.precision > decimalDigitsMax || t.scale < 0 || t.scale > t.precision {
			return t, errorf(codeInvalidParameter, "NUMERIC precision %d must be between 1 and 38, and the scale %d within it", t.precision, t.scale).at(at)
		}
		return t, nil
	case "float":
		if len(mods) == 1 && mods[0] <= 24 {
			return sqlType{kind: kindReal}, nil
		}
		return sqlType{kind: kindDouble}, nil
	}
	k, ok := unboundKinds[name]
	if !ok {
		return sqlType{}, errorf(codeUndefinedObject, "type %q does not exist", name).hint("docs/sql.md lists the types").at(at)
	}
	return sqlType{kind: k}, nil
}

func (p *parser) createView() (statement, error) {
	s := createView{ifNotExists: p.ifNotExists()}
	var err error
	if s.schema, s.name, err = p.qualified(); err != nil {
		return nil, err
	}
	for {
		if p.accept("auto", "refresh") {
			switch {
			case p.accept("yes"):
				s.autoRefresh = true
			case !p.accept("no"):
				return nil, p.unexpected()
			}
			continue
		}
		ok, err := p.physicalOption()
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
	}
	if err := p.expect("as"); err != nil {
		return nil, err
	}
	if !startsQuery(p.peek()) {
		return nil, p.unexpected()
	}
	s.query = p.rest()
	return s, nil
}

func (p *parser) drop() (statement, error) {
	at := position(p.sql, p.peek().start)
	switch {
	case p.accept("schema"):
		s := dropSchema{ifExists: p.accept("if", "exists")}
		name, err := p.ident()
		s.name = name
		if p.accept("cascade") {
			return nil, unsupported("DROP SCHEMA … CASCADE", "drop its tables first").at(at)
		}
		p.accept("restrict")
		return s, err
	case p.accept("table"):
		return p.dropNames(dropRelation{})
	case p.accept("materialized", "view"):
		return p.dropNames(dropRelation{view: true})
	}
	if t := p.peek(); t.kind == tokenIdent {
		return nil, unsupported("DROP "+strings.ToUpper(t.value), "docs/sql.md lists the statements").at(at)
	}
	return nil, p.unexpected()
}

func (p *parser) dropNames(s dropRelation) (statement, error) {
	s.ifExists = p.accept("if", "exists")
	for {
		schema, name, err := p.qualified()
		if err != nil {
			return nil, err
		}
		s.names = append(s.names, [2]string{schema, name})
		if !p.accept(",") {
			break
		}
	}
	if p.peek().is("cascade") {
		return nil, unsupported("CASCADE", "drop the views that depend on it first").at(position(p.sql, p.peek().start))
	}
	p.accept("restrict")
	return s, nil
}

func (p *parser) alter() (statement, error) {
	at := position(p.sql, p.peek().start)
	if !p.accept("table") {
		return nil, unsupported("ALTER of anything but a table", "docs/sql.md lists the statements").at(at)
	}
	p.accept("if", "exists")
	p.accept("only")
	s := addColumn{}
	var err error
	if s.schema, s.name, err = p.qualified(); err != nil {
		return nil, err
	}
	at = position(p.sql, p.peek().start)
	if !p.accept("add", "column") && !p.accept("add") {
		return nil, unsupported("this ALTER TABLE", "ADD COLUMN is supported").at(at)
	}
	s.ifNotExists = p.ifNotExists()
	if s.column, err = p.columnDefinition(); err != nil {
		return nil, err
	}
	if s.column.notNull {
		return nil, unsupported("NOT NULL of an added column", "rows that are there have no value for it").at(at)
	}
	return s, nil
}

func (p *parser) refresh() (statement, error) {
	if err := p.expect("materialized", "view"); err != nil {
		return nil, err
	}
	schema, name, err := p.qualified()
	if err == nil && !p.accept("restrict") {
		p.accept("cascade")
	}
	return refreshView{schema, name}, err
}

func (p *parser) insert() (statement, error) {
	if err := p.expect("into"); err != nil {
		return nil, err
	}
	s := insertStatement{}
	var err error
	if s.schema, s.name, err = p.qualified(); err != nil {
		return nil, err
	}
	if p.peek().punct("(") && !p.ahead(1).is("select") && !p.ahead(1).is("with") && !p.ahead(1).is("values") && !p.ahead(1).punct("(") {
		if s.columns, err = p.names(true); err != nil {
			return nil, err
		}
	}
	if p.accept("default", "values") {
		return nil, unsupported("INSERT … DEFAULT VALUES", "give the values").at(position(p.sql, p.tokens[p.pos-1].start))
	}
	if !startsQuery(p.peek()) {
		return nil, p.unexpected()
	}
	s.query = p.rest()
	for i, t := range s.query {
		if t.is("returning") && i > 0 {
			return nil, unsupported("RETURNING", "select the rows afterwards").at(position(p.sql, t.start))
		}
		if t.is("on") && i+1 < len(s.query) && s.query[i+1].is("conflict") {
			return nil, unsupported("ON CONFLICT", "there are no unique keys; filter with WHERE NOT EXISTS").at(position(p.sql, t.start))
		}
	}
	return s, nil
}
