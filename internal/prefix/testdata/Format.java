import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.time.ZoneId;
import java.time.format.DateTimeFormatter;
import java.util.Locale;

/** Reads lines of zone, epoch seconds, nanoseconds and pattern, parted by tabs; writes "=text" or "!reason". */
public class Format {
    public static void main(String[] args) throws Exception {
        // English as in the United States, weeks as in ISO 8601.
        Locale locale = Locale.forLanguageTag("en-US-u-rg-gbzzzz");
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream out = new PrintStream(System.out, false, "UTF-8");
        for (String line; (line = in.readLine()) != null; ) {
            String[] f = line.split("\t", -1);
            String answer;
            try {
                Instant at = Instant.ofEpochSecond(Long.parseLong(f[1]), Long.parseLong(f[2]));
                answer = "=" + DateTimeFormatter.ofPattern(f[3], locale).format(at.atZone(ZoneId.of(f[0])));
            } catch (RuntimeException e) {
                answer = "!" + e;
            }
            out.println(answer.replace("\n", " "));
        }
        out.flush();
    }
}
