process WSISAMQUPATH_SEGMENT {
    tag "${meta.id}"
    label 'process_medium'

    // Made from the Dockerfile of the repository: no registry has it.
    container "wsisam-qupath:latest"

    input:
    tuple val(meta), path(slide), path(prompts)

    output:
    tuple val(meta), path("${prefix}.{geojson,geojson.gz,parquet}"), emit: outlines
    tuple val(meta), path("${prefix}.status.json")                 , emit: status
    tuple val(meta), path("${prefix}.labels.ome.tif")              , emit: labels, optional: true
    path "versions.yml"                                            , emit: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    def name = task.ext.prefix ?: "${meta.id}"
    prefix = name  // for the outputs; Nextflow 23 does not know it in what is declared here
    // A table of one slide, so that its status says what `batch --from` asks for.
    def options = ['mpp', 'points', 'object-size', 'simplify', 'min-area', 'as', 'candidates']
    def row = [slide: slide.name, prompts: prompts.name, name: name] + meta.subMap(options)
    def given = row.findAll { column, value -> value }
    def columns = given.keySet().join(',')
    def cells = given.values().collect { value -> '"' + "${value}".replace('"', '""') + '"' }.join(',')
    """
    cat <<'END_TABLE' > table.csv
    ${columns}
    ${cells}
    END_TABLE

    wsisam-qupath segment \\
        --table table.csv \\
        --output . \\
        ${args}

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        wsisam-qupath: \$(wsisam-qupath --version | sed 's/.* //')
    END_VERSIONS
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    touch "${prefix}.geojson" "${prefix}.status.json"

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        wsisam-qupath: stub
    END_VERSIONS
    """
}
