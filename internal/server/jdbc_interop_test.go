//go:build interop

package server

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// driverJar names the PostgreSQL JDBC driver, which tools/interop.sh fetches.
const driverJar = "TAPEHOUSE_POSTGRESQL_JAR"

// tourJava is run by the java launcher from its source.
const tourJava = `
import java.sql.*;
import java.util.*;

public class Tour {
    public static void main(String[] a) throws Exception {
        Properties p = new Properties();
        p.setProperty("user", System.getenv("PGUSER"));
        p.setProperty("password", System.getenv("PGPASSWORD"));
        p.setProperty("prepareThreshold", "1"); // server-side statements and binary values from the first
        try (Connection c = DriverManager.getConnection("jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE"), p)) {
            DatabaseMetaData m = c.getMetaData();
            System.out.println("product " + m.getDatabaseProductName());
            try (ResultSet r = m.getTables(null, "equities", "exec%", new String[]{"TABLE"})) {
                while (r.next()) System.out.println("table " + r.getString("TABLE_SCHEM") + "." + r.getString("TABLE_NAME"));
            }
            try (ResultSet r = m.getColumns(null, "equities", "executions", "price")) {
                while (r.next()) System.out.println("column " + r.getString("COLUMN_NAME") + " " + r.getString("TYPE_NAME") + " " + r.getInt("COLUMN_SIZE") + "," + r.getInt("DECIMAL_DIGITS"));
            }
            try (PreparedStatement s = c.prepareStatement("SELECT count(*), sum(quantity * price), max(executed_at), max(trade_date) FROM equities.executions WHERE seq > ? AND source = ?")) {
                for (int i = 0; i < 3; i++) {
                    s.setLong(1, 0); s.setString(2, "J");
                    try (ResultSet r = s.executeQuery()) {
                        r.next();
                        System.out.println("sum " + r.getLong(1) + " " + r.getBigDecimal(2) + " " + r.getTimestamp(3).toInstant() + " " + r.getDate(4));
                    }
                }
            }
            c.setAutoCommit(false); // a fetch size needs a transaction
            try (Statement s = c.createStatement()) {
                s.setFetchSize(100);
                long n = 0, sum = 0;
                try (ResultSet r = s.executeQuery("SELECT seq FROM equities.executions ORDER BY seq")) { while (r.next()) { n++; sum += r.getLong(1); } }
                System.out.println("fetched " + n + " " + sum);
            }
            c.commit();
            c.setAutoCommit(true);
            for (String sql : new String[]{"SELECT * FROM nope", "SELECT 1/0", "SELECT * FROM read_text('/etc/passwd')"}) {
                try (Statement s = c.createStatement()) { s.executeQuery(sql); System.out.println("no error"); }
                catch (SQLException e) { System.out.println("error " + e.getSQLState()); }
            }
            try (Statement s = c.createStatement()) {
                s.execute("CREATE TABLE public.jdbc (a int, b numeric(18,4), c timestamptz, d varchar)");
            }
            try (PreparedStatement s = c.prepareStatement("INSERT INTO public.jdbc VALUES (?, ?, ?, ?)")) {
                s.setInt(1, 1); s.setBigDecimal(2, new java.math.BigDecimal("12.3456"));
                s.setObject(3, java.time.OffsetDateTime.parse("2026-11-20T09:30:00.000001-05:00")); s.setString(4, "naïve");
                System.out.println("inserted " + s.executeUpdate());
            }
            try (Statement s = c.createStatement(); ResultSet r = s.executeQuery("SELECT * FROM public.jdbc")) {
                r.next();
                System.out.println("row " + r.getInt(1) + " " + r.getBigDecimal(2) + " " + r.getObject(3, java.time.OffsetDateTime.class).toInstant() + " " + r.getString(4).length());
            }
        }
    }
}
`

// TestJDBC runs PostgreSQL's own JDBC driver against the server.
func TestJDBC(t *testing.T) {
	java, jar := look(t, "java", "the server was not tried with JDBC"), os.Getenv(driverJar)
	if jar == "" {
		t.Skipf("SKIPPED: %s does not name org.postgresql:postgresql: the server was not tried with JDBC", driverJar)
	}
	s := open(t, testConfig(t))
	putLegs(t, s, "J", 1, 1000)
	source := filepath.Join(t.TempDir(), "Tour.java")
	if err := os.WriteFile(source, []byte(tourJava), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := run(t, environ(t, s), "", java, "-Dfile.encoding=UTF-8", "-Duser.timezone=UTC", "-cp", jar, source)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	all := &sums{}
	for seq := int64(1); seq <= 1000; seq++ {
		all.add(t, newLeg("J", seq))
	}
	notional := strings.Split(all.row(), "|")[2]
	row := "sum 1000 " + notional + " 2026-11-20T15:00:00.123456Z 2026-11-20\n"
	want := "product PostgreSQL\ntable equities.executions\ncolumn price numeric 18,4\n" + row + row + row + "fetched 1000 500500\n" +
		"error 42P01\nerror 22012\nerror 42883\ninserted 1\nrow 1 12.3456 2026-11-20T14:30:00.000001Z 5\n"
	if out != want {
		t.Errorf("got\n%s\nwant\n%s", out, want)
	}
}
