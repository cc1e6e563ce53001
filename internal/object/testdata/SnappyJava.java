import java.io.InputStream;
import java.io.OutputStream;
import org.xerial.snappy.SnappyHadoopCompatibleOutputStream;
import org.xerial.snappy.SnappyInputStream;
import org.xerial.snappy.SnappyOutputStream;

/** Reads or writes Snappy objects with snappy-java, from standard input to standard output. */
public class SnappyJava {
    public static void main(String[] args) throws Exception {
        byte[] in = System.in.readAllBytes();
        boolean hadoop = args[1].equals("HADOOP_SNAPPY");
        if (args[0].equals("write")) {
            OutputStream out = hadoop ? new SnappyHadoopCompatibleOutputStream(System.out) : new SnappyOutputStream(System.out);
            out.write(in);
            out.close();
            return;
        }
        if (!hadoop) {
            System.out.write(new SnappyInputStream(new java.io.ByteArrayInputStream(in)).readAllBytes());
            System.out.flush();
            return;
        }
        java.nio.ByteBuffer b = java.nio.ByteBuffer.wrap(in);
        while (b.hasRemaining()) {
            int plain = b.getInt();
            byte[] block = new byte[b.getInt()];
            b.get(block);
            byte[] text = org.xerial.snappy.Snappy.uncompress(block);
            if (text.length != plain) {
                throw new IllegalStateException("block of " + text.length + " bytes, announced " + plain);
            }
            System.out.write(text);
        }
        System.out.flush();
    }
}
