// Starts a Trino server. Trino's own launcher class is not among the packages we take Trino from;
// the class it would call is, and is called by name so that an older compiler can build this file.
public final class TrinoLauncher {
    public static void main(String[] args) throws Exception {
        Class<?> server = Class.forName("io.trino.server.Server");
        Object instance = server.getDeclaredConstructor().newInstance();
        server.getMethod("start", String.class).invoke(instance, args[0]);
    }
}
