package wsisam

import java.net.http.*
import java.net.http.HttpRequest.BodyPublishers
import java.net.http.HttpResponse.BodyHandlers
import java.nio.file.Files
import java.security.KeyStore
import java.security.cert.CertificateFactory
import java.time.Duration
import java.util.concurrent.*
import javax.net.ssl.*

import static wsisam.Json.*

/** Finds a server, or starts one, sends it requests, and says what is wrong and how to fix it. */
class Server {
    static final int PROTOCOL = 2
    static final String START = 'Start it in a terminal with `wsisam-qupath serve` and try again.'
    static final String LOOK = 'See View > Show log or its terminal, and try again.'
    static final String SETTINGS = 'Extensions > WSI-SAM > Settings'
    private static final Duration BELIEVED = Duration.ofSeconds(10)

    Settings settings
    /** How long a server may take to start, or to load its model. */
    Duration longestWait = Duration.ofMinutes(5)
    /** Told what a request waits for. */
    Closure onWait = { String what -> }

    private HttpClient client
    private String clientCertificate
    /** Limits of a request to each server that fits these scripts, by its address. */
    private final Map<String, Map> limitsOf = new ConcurrentHashMap<>()
    private Process started
    /** The server on this computer that has answered, and until when it need not be asked for that again; ns. */
    private volatile Map answering
    private volatile long answeringUntil

    /** Sends a request and returns the server's JSON. */
    Map ask(Request request, String path, String method = 'GET', Object document = null) {
        return read(send(request, method, path, document))
    }

    /** Sends a request, and repeats it while the server is busy or loads its model. */
    HttpResponse<InputStream> send(Request request, String method, String path, Object document = null) {
        def server = findServer(request)
        checkProtocol(request, server)
        return sendTo(request, server, method, path, document)
    }

    /** Limits of one request. */
    Map limits(Request request) {
        return limitsOf.values().find() ?: ask(request, '/v1/info').limits
    }

    /** Reads the records of RFC 8142, each after a separator on a line of its own, as they come. */
    void eachRecord(HttpResponse<InputStream> response, Closure take) {
        response.body().newReader('UTF-8').withCloseable { reader ->
            for (String line; (line = inTime(response) { reader.readLine() }) != null;) {
                def text = line.replace('\u001e', '').trim()
                if (text)
                    take(JSON.fromJson(text, Map))
            }
        }
    }

    private Map read(HttpResponse<InputStream> response) {
        if (response.statusCode() >= 300)
            throw new ServerException(messageOf(problemOf(response)))
        return readJson(contentOf(response))
    }

    String contentOf(HttpResponse<InputStream> response) {
        return inTime(response) { response.body().withCloseable { it.getText('UTF-8') } }
    }

    /** Ends the reading of an answer when nothing more has come for too long. */
    private <T> T inTime(HttpResponse<InputStream> response, Closure<T> work) {
        def late = CompletableFuture.delayedExecutor(patience().toSeconds(), TimeUnit.SECONDS)
        def end = CompletableFuture.runAsync({ response.body().close() } as Runnable, late)
        try {
            return work()
        } finally {
            end.cancel(false)
        }
    }

    /** How long there may be no word from a server: it gives up a request itself before. */
    private Duration patience() {
        return longestWait.plusSeconds((limitsOf.values()*.request_seconds.max() ?: 0) as long)
    }

    private HttpResponse<InputStream> sendTo(Request request, Map server, String method, String path, document) {
        def isStream = path in ['/v1/segment', '/v1/find'] || path.endsWith('/results')
        def content = document == null ? BodyPublishers.noBody() : BodyPublishers.ofString(JSON.toJson(document))
        def message = HttpRequest.newBuilder(uriOf(server.url + path)).timeout(patience())
            .header('Accept', isStream ? 'application/geo+json-seq' : 'application/json')
            .header('Content-Type', 'application/json').method(method, content)
        if (server.token)
            message.header('Authorization', "Bearer $server.token")
        long end = System.nanoTime() + longestWait.toNanos()
        for (boolean hasAsked = false; ; hasAsked = true) {
            def response = sendOnce(request, message.build(), server.url)
            long pause = response.headers().firstValue('Retry-After').map { Long.parseLong(it) * 1000 }.orElse(-1L)
            if (response.statusCode() != 503 || pause < 0 || System.nanoTime() + pause * 1_000_000 > end)
                return response
            def isLoading = readJson(contentOf(response))?.type?.endsWith(':loading')
            tellWait(request, isLoading ? 'the server loads its model' : 'the server is busy')
            message.setHeader('Prefer', 'wait=60')    // it answers as soon as the model is loaded
            if (!isLoading || hasAsked)
                Thread.sleep(pause)
        }
    }

    private HttpResponse<InputStream> sendOnce(Request request, HttpRequest message, String url) {
        if (request.isCancelled)
            throw new CancellationException()
        try {
            request.response = httpClient().sendAsync(message, BodyHandlers.ofInputStream())
            def response = request.response.get()
            request.body = response.body()
            request.waits = null
            return response
        } catch (ExecutionException e) {
            def cause = e.cause
            if (cause instanceof CancellationException)
                throw cause
            if (cause instanceof SSLException)
                throw new ServerException(
                    "The certificate of $url is not trusted (${cause.message}): enter its PEM file in $SETTINGS.")
            if (cause instanceof ConnectException || cause instanceof HttpConnectTimeoutException)
                throw new ServerException("No server responds at $url. $START")
            if (cause instanceof HttpTimeoutException)
                throw new ServerException("The server at $url is silent. $LOOK")
            throw new ServerException("The server at $url ended the connection (${cause.message ?: cause}). $LOOK")
        }
    }

    /** Says what a request waits for, on the viewer and in its progress window. */
    private void tellWait(Request request, String what) {
        request.waits = what
        onWait.call(what)
    }

    /** Refuses a server that these scripts were not made for. */
    private void checkProtocol(Request request, Map server) {
        if (limitsOf.containsKey(server.url))
            return
        def response = sendTo(request, server, 'GET', '/v1/info', null)
        if (response.statusCode() == 404)
            throw new ServerException(strangerAt(response))
        def info = read(response)
        if (info?.protocol != PROTOCOL)
            throw new ServerException("The server at $server.url (version ${info?.version ?: 'unknown'}) " +
                'and the scripts in QuPath do not fit each other: run `wsisam-qupath setup`, ' +
                'and start the server and QuPath again.')
        limitsOf.clear()
        limitsOf[server.url] = info.limits
    }

    // Where it is

    /** Finds URL and token: those of the settings, else of a server on this computer, which is started if none runs. */
    Map findServer(Request request) {
        def url = settings['Server'].replaceAll('/+$', '')
        def found = url ? localServers().find { it.url == url } :
            findAnswering() ?: start(request) ?: localServers().find()
        request.waits = null
        if (!url && !found)
            throw new ServerException("No server is running on this computer. $START To have QuPath start it by " +
                "itself, run `wsisam-qupath setup` once. To use a server on another computer, enter its address in " +
                "$SETTINGS.")
        return [url: url ?: found.url, token: settings['Token'] ?: found?.token]
    }

    /** A file in the folder where servers leave theirs, and `setup` leaves a note of the program. */
    private static File ownFile(String path) {
        return new File("${System.getProperty('user.home')}/.wsisam-qupath/$path")
    }

    /** Lists the servers on this computer by the files they left, the newest first; a killed one left its file too. */
    private static List<Map> localServers() {
        def files = (ownFile('servers').listFiles() ?: []).findAll { it.name.endsWith('.json') }
        return files.sort { -it.lastModified() }.findResults { serverIn(it) }
    }

    private static Map serverIn(File file) {
        def about = readJson(file)
        return about?.url && about.token ? [url: about.url, token: about.token] : null
    }

    /** Finds a server of this program on this computer that answers. */
    Map findAnswering() {
        if (System.nanoTime() < answeringUntil && answering in localServers())
            return answering
        answering = localServers().find { server ->
            try {
                def asked = HttpRequest.newBuilder(uriOf(server.url + '/healthz')).build()
                def answer = httpClient().sendAsync(asked, BodyHandlers.ofString()).get(2, TimeUnit.SECONDS)
                return answer.statusCode() == 200 && readJson(answer.body())?.state
            } catch (ExecutionException | TimeoutException e) {
                logger.debug("$server.url: ${e.message}", e)
                return false
            }
        }
        answeringUntil = System.nanoTime() + BELIEVED.toNanos()
        return answering
    }

    /** Starts the program that `setup` noted, unless this did so; it stops when QuPath ends. Null without a note. */
    private synchronized Map start(Request request) {
        def command = readJson(ownFile('program.json'))?.command
        if (!command)
            return null
        // Named, as the home folder of Java may be another one than that of the program.
        def file = ownFile("servers/qupath-${ProcessHandle.current().pid()}.json")
        if (!started?.isAlive()) {
            tellWait(request, 'the server starts')
            def options = ['serve', '--port', '0', '--stop-with-input', '--token-file', file.path]
            started = startProgram(command + options, file)
        }
        long end = System.nanoTime() + longestWait.toNanos()
        while (started.isAlive() && System.nanoTime() < end) {
            def found = serverIn(file)
            if (found)
                return found
            if (request.isCancelled)
                throw new CancellationException()
            Thread.sleep(200)
        }
        def trouble = started.isAlive() ? "is silent after ${longestWait.toSeconds()} seconds" : 'has ended'
        throw new ServerException(
            "The server that QuPath started $trouble: see View > Show log for the reason. $START")
    }

    /** Starts the server, with its log in that of QuPath, and without the file that an earlier one may have left. */
    private static Process startProgram(List<String> command, File file) {
        logger.info("Starting ${command.join(' ')}")
        try {
            Files.createDirectories(file.parentFile.toPath())
            Files.deleteIfExists(file.toPath())
            def program = new ProcessBuilder(command).redirectErrorStream(true).start()
            Thread.startDaemon('wsi-sam server') {
                program.inputStream.eachLine { tellLog(it) }
            }
            return program
        } catch (IOException e) {
            throw new ServerException("The server cannot be started (${e.message}): run `wsisam-qupath setup` again.")
        }
    }

    /** Keeps a line of the server's log in that of QuPath; what follows work there would fill it. */
    private static void tellLog(String line) {
        if (line =~ / GET \S+ 200 /)
            logger.debug(line)
        else if (!line.startsWith('Token:'))
            logger.info(line)
    }

    /** Stops the server that QuPath has started; false if it has started none. */
    boolean stop() {
        def isOurs = started?.isAlive()
        if (isOurs)
            started.outputStream.close()    // destroy() would also send a signal, and on Windows end it at once
        started = null
        return isOurs
    }

    // The connection

    private static URI uriOf(String text) {
        try {
            def uri = new URI(text)
            if (uri.host != null && uri.scheme in ['http', 'https'])
                return uri
        } catch (URISyntaxException e) {
            logger.debug(e.message, e)
        }
        throw new ServerException(
            "'$text' is not the address of a server: enter it in $SETTINGS like http://127.0.0.1:8473.")
    }

    /** Makes one client for all requests, as it keeps connections open. */
    private synchronized HttpClient httpClient() {
        def certificate = settings['Certificate']
        if (client == null || certificate != clientCertificate) {
            def builder = HttpClient.newBuilder()
                .version(HttpClient.Version.HTTP_1_1).connectTimeout(Duration.ofSeconds(10))
            if (certificate)
                builder.sslContext(trusting(new File(certificate)))
            client = builder.build()
            clientCertificate = certificate
        }
        return client
    }

    private static SSLContext trusting(File certificate) {
        if (!certificate.isFile())
            throw new ServerException(
                "There is no file $certificate: enter the file of the server's certificate in $SETTINGS.")
        def store = KeyStore.getInstance(KeyStore.defaultType)
        store.load(null, null)
        def found = certificate.withInputStream { CertificateFactory.getInstance('X.509').generateCertificates(it) }
        found.eachWithIndex { one, n -> store.setCertificateEntry("$n", one) }
        def factory = TrustManagerFactory.getInstance(TrustManagerFactory.defaultAlgorithm)
        factory.init(store)
        def context = SSLContext.getInstance('TLS')
        context.init(null, factory.trustManagers, null)
        return context
    }

    // Problems

    /** Reads the server's error message. */
    Map problemOf(HttpResponse<InputStream> response) {
        def problem = readJson(contentOf(response))
        if (problem?.detail && problem.type)
            return problem
        throw new ServerException(strangerAt(response))
    }

    static String strangerAt(HttpResponse response) {
        return "${response.uri().resolve('/')} (status ${response.statusCode()}) is not a server of wsisam-qupath, " +
            "or it is too old: update it, or enter another one in $SETTINGS."
    }

    static String nameOf(Map problem) {
        return problem.type.tokenize(':')[-1]
    }

    static String messageOf(Map problem) {
        def id = problem.instance?.tokenize(':')?.last()
        def hint = nameOf(problem) != 'unauthorized' ? '' :
            " For a server on this computer the script finds the token by itself; otherwise enter it in $SETTINGS."
        return problem.detail + hint + (id ? "\n(request $id)" : '')
    }
}
