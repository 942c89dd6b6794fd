import java.util.concurrent.Callable;
import java.util.concurrent.TimeUnit;

/** What a scenario is asked to do. */
final class Order {
    final String nameserver;
    final String topic;
    final String group;
    final int count;
    /** Tags as `A || B`, or `sql:` and an SQL92 expression. */
    final String subscription;
    /** After so many seconds the program gives up. */
    final long seconds;

    Order(String nameserver, String topic, String group, int count, String subscription) {
        this.nameserver = nameserver;
        this.topic = topic;
        this.group = group;
        this.count = count;
        this.subscription = subscription;
        String limit = System.getenv("CLIENT_SECONDS");
        this.seconds = limit == null ? 60 : Long.parseLong(limit);
    }

    /** The tag of the message with this number. */
    static String tag(int number) {
        return new String[] {"TagA", "TagB", "TagC"}[number % 3];
    }

    static void expect(boolean holds, String otherwise) {
        if (!holds) {
            throw new IllegalStateException(otherwise);
        }
    }

    /**
     * Does something that begins with a look-up of the route. On a machine that starts many Java machines at once the
     * look-up, and only that, is tried again: the clients wait for it no longer than three seconds.
     */
    static <T> T patiently(Callable<T> work) throws Exception {
        for (int tries = 1; ; tries++) {
            try {
                return work.call();
            } catch (Exception failure) {
                if (tries == 10 || !isAboutTheRoute(failure)) {
                    throw failure;
                }
                TimeUnit.MILLISECONDS.sleep(500);
            }
        }
    }

    private static boolean isAboutTheRoute(Throwable failure) {
        for (Throwable cause = failure; cause != null; cause = cause.getCause()) {
            String message = String.valueOf(cause.getMessage());
            boolean unknown = message.startsWith("No route info") || message.startsWith("Can not find Message Queue");
            // Client 5 says it so, with the cause inside.
            if (unknown || cause instanceof IllegalStateException && cause.getCause() != null) {
                return true;
            }
        }
        return false;
    }
}
