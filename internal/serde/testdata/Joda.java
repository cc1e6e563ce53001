import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Locale;
import org.joda.time.format.DateTimeFormat;

/** Reads lines of pattern and text, parted by a tab; writes "=" and epoch milliseconds, or "!reason". */
public class Joda {
    public static void main(String[] args) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        StringBuilder out = new StringBuilder();
        for (String line; (line = in.readLine()) != null; ) {
            String[] f = line.split("\t", -1);
            try {
                long millis = DateTimeFormat.forPattern(f[0]).withLocale(Locale.US).withZoneUTC().parseMillis(f[1]);
                out.append('=').append(millis);
            } catch (RuntimeException e) {
                out.append('!').append(e.toString().replace("\n", " "));
            }
            out.append('\n');
        }
        System.out.print(out);
    }
}
